# syntax=docker/dockerfile:1
# Head, CPU workers, submitter and starter. Build from the project's root:
#   docker build -f infra/docker/cpu.Dockerfile -t ulsdram:cpu .
# The default torch build carries CUDA libraries that a CPU never uses (4.4 GB of the image).
# --build-arg TORCH_INDEX=<index with CPU builds> leaves them out; torch and torchvision must then
# both come from there.
FROM python:3.11.7-slim-bookworm AS build
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY infra/docker/constraints.txt /build/constraints.txt
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip install --no-deps --index-url "$TORCH_INDEX" \
        -c /build/constraints.txt torch torchvision; \
    fi
# Only what decides the dependencies: this layer stays when the code changes.
COPY pyproject.toml README.md LICENSE /build/
RUN mkdir -p /build/ulsdram_core /build/pipelines /build/jobs \
    && pip install -c /build/constraints.txt "/build[s3]" \
    && pip uninstall --yes ulsdram \
    && find /opt/venv -name __pycache__ -prune -exec rm -rf {} +

FROM python:3.11.7-slim-bookworm
# rsync: the cluster launcher copies files with it. wget: health probes of older operators.
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
    RAY_USAGE_STATS_ENABLED=0
WORKDIR /app
USER 1000:1000
CMD ["python", "jobs/extract_catalog.py", "--help"]
