# syntax=docker/dockerfile:1
# GPU workers. Build from the project's root:
#   docker build -f infra/docker/gpu.Dockerfile -t ulsdram:gpu .
# The CUDA libraries come with the torch wheels; of the machine only the driver is used, which the
# NVIDIA container runtime brings in.
FROM python:3.11.7-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY infra/docker/constraints.txt /build/constraints.txt
# The wheels that change least and weigh most get a layer of their own.
RUN pip install -c /build/constraints.txt torch torchvision \
    && find /opt/venv -name __pycache__ -prune -exec rm -rf {} +
COPY pyproject.toml README.md LICENSE /build/
RUN mkdir -p /build/ulsdram_core /build/pipelines /build/jobs \
    && pip install -c /build/constraints.txt "/build[s3]" \
    && pip uninstall --yes ulsdram \
    && find /opt/venv -name __pycache__ -prune -exec rm -rf {} +

FROM python:3.11.7-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --user-group --create-home ray
COPY --from=build /opt/venv /opt/venv
COPY jobs /app/jobs
COPY pipelines /app/pipelines
COPY ulsdram_core /app/ulsdram_core
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
USER 1000:1000
CMD ["python", "jobs/extract_catalog.py", "--help"]
