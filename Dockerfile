# The reproduction image: the pinned stack and this project, for a CPU; see docs/docker.md.
# The base is any Debian or Ubuntu with Python 3.11 to 3.13, or whose package python3-venv brings one.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

# vLLM needs libnuma; nothing here needs a compiler.
RUN apt-get update \
    && python=$(python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv) \
    && apt-get install -y --no-install-recommends ca-certificates libnuma1 $python \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

WORKDIR /opt/tulu_pipeline

# The packages before the code, which changes more often; empty files stand in for it, since it is installed by
# reference. Bytecode is compiled here (0.5 GB, half the start time): who runs the image cannot write it here.
COPY pyproject.toml LICENSE ./
COPY requirements requirements
COPY deployments/setup.sh deployments/setup.sh
RUN mkdir flows tasks tulu_pipeline \
    && touch README.md flows/__init__.py tasks/__init__.py tulu_pipeline/__init__.py \
    && PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 deployments/setup.sh cpu \
    && rm -f /tmp/uv-*.lock

COPY . .

# Any user may run it, known to /etc/passwd or not: what is to last goes to /data, what libraries cache to /tmp.
RUN .venv/bin/python -m compileall -q flows tasks tulu_pipeline && mkdir -m 1777 /data
ENV PATH=/opt/tulu_pipeline/.venv/bin:$PATH \
    HOME=/tmp \
    USER=tulu \
    PREFECT_HOME=/data/prefect \
    TULU_STORE=/data/store
USER 1000:1000
WORKDIR /data
VOLUME /data
ENTRYPOINT ["tulu"]
CMD ["run", "demo"]
