"""The fault table: what goes wrong with inputs, models and machines, staged for real and scored
from what happens."""
