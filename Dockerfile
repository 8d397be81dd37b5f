# pseudohealthy on CPUs. Research use only.
#   docker build -t pseudohealthy . && docker run --rm -v "$PWD:/data" pseudohealthy detect brain-t1 /data/SCAN.png --out /data/found
FROM python:3.11-slim
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY requirements.lock requirements-torch.txt pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv .venv
RUN .venv/bin/pip install --no-deps --require-hashes -r requirements.lock
RUN .venv/bin/pip install -r requirements-torch.txt
RUN .venv/bin/pip install --no-deps --no-build-isolation .
ENTRYPOINT ["/app/.venv/bin/pseudohealthy"]
CMD ["--help"]
