# The ML backend: what Label Studio talks to. No torch in it.
#
# Build from the repository's root:  docker build -f docker/backend.Dockerfile -t boxlift-backend .
# To pin the base by content, not only by tag, give its digest as `docker buildx imagetools inspect` shows it:
#   docker build --build-arg PYTHON_IMAGE=python:3.13.9-slim-bookworm@sha256:… …
ARG PYTHON_IMAGE=python:3.13.9-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/boxlift
ENV PATH=/opt/boxlift/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/backend.txt requirements/
RUN pip install --require-hashes --no-deps -r requirements/backend.txt
COPY pyproject.toml README.md LICENSE ./
COPY backend backend
COPY worker worker
RUN pip install --no-deps .

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --user-group --create-home boxlift
COPY --from=build /opt/boxlift /opt/boxlift
ENV PATH=/opt/boxlift/bin:$PATH PYTHONUNBUFFERED=1 BOXLIFT_HOST=0.0.0.0
USER 10001:10001
WORKDIR /home/boxlift
EXPOSE 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/health', timeout=4)"]
CMD ["boxlift", "serve"]
