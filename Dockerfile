# The reproduction image: the pinned stack and this project. `docker run IMAGE` runs the demo;
# `docker run -v $PWD/store:/data/store IMAGE run first_light` keeps the artifacts.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git libnuma1 make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/tulu_pipeline

# The packages first: they change less often than the code.
COPY Makefile pyproject.toml LICENSE ./
COPY requirements requirements
COPY deployments/setup.sh deployments/setup.sh
RUN mkdir -p flows tasks tulu_pipeline && touch flows/__init__.py tasks/__init__.py tulu_pipeline/__init__.py \
    && make setup

COPY . .

ENV PATH=/opt/tulu_pipeline/.venv/bin:$PATH \
    TULU_STORE=/data/store
WORKDIR /data
VOLUME /data
ENTRYPOINT ["tulu"]
CMD ["run", "demo"]
