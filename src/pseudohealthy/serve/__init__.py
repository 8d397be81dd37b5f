"""The local web app: drop a scan, choose a run, look at the finding. For one person on one machine;
no accounts.

`guard` decides who is answered, `uploads` takes files in, `jobs` queues and runs them one at a
time, each in a process of its own, `shelf` lists what is served, `app` ties them together, `server`
listens.
"""
