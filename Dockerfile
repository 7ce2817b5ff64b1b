# The server, with the web page.
#   docker build --tag pathmnist .                           CPU
#   docker build --tag pathmnist --build-arg VARIANT=cuda .  NVIDIA GPU
FROM python:3.11-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini=0.19.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin pathmnist
WORKDIR /app

FROM base AS build-server
ARG VARIANT=cpu
RUN python -m venv /opt/venv && /opt/venv/bin/pip install pip==26.3
COPY serve.lock ./
COPY serving/__init__.py serving/install.py serving/
RUN /opt/venv/bin/python -m serving.install --torch "$VARIANT" && /opt/venv/bin/pip check
COPY handler handler
COPY export export
COPY training training
COPY serving serving
RUN /opt/venv/bin/python -m export

FROM node:22-bookworm-slim AS build-viewer
WORKDIR /viewer
COPY serving/viewer ./
RUN npm ci --ignore-scripts --no-audit --no-fund

FROM base AS server
COPY --from=build-server /opt/venv /opt/venv
COPY --from=build-server /app/model_store model_store
COPY config.properties LICENSE ./
COPY serving serving
COPY --from=build-viewer /viewer/node_modules serving/viewer/node_modules
COPY client client
COPY handler handler
COPY regions regions
COPY web web
COPY docs/evaluation docs/evaluation
COPY docs/openapi.json docs/tile.png docs/
USER 10001
# The root file system may be read-only: the server writes only to /tmp.
EXPOSE 8080 8001
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s \
    CMD ["/opt/venv/bin/python", "-m", "serving", "check"]
ENTRYPOINT ["tini", "--", "/opt/venv/bin/python", "-m", "serving", "start", "--run-folder", "/tmp/pathmnist"]
CMD ["--edge-address", "http://0.0.0.0:8080"]
