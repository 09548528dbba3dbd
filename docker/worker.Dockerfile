# A worker, for NVIDIA GPUs and for processors: PyPI's torch brings CUDA's libraries with it, so that the base needs
# none. The host needs NVIDIA's driver and its container toolkit; without a GPU the same image computes on the CPU.
#
# Build from the repository's root:  docker build -f docker/worker.Dockerfile -t boxlift-worker .
# Pinning the base by digest: see backend.Dockerfile.
ARG PYTHON_IMAGE=python:3.13.9-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/boxlift
ENV PATH=/opt/boxlift/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/worker.txt requirements/
RUN pip install --require-hashes --no-deps -r requirements/worker.txt
COPY pyproject.toml README.md LICENSE ./
COPY backend backend
COPY worker worker
RUN pip install --no-deps .

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --user-group --create-home boxlift \
  && install -d -o boxlift -g boxlift /cache
COPY --from=build /opt/boxlift /opt/boxlift
ENV PATH=/opt/boxlift/bin:$PATH PYTHONUNBUFFERED=1 BOXLIFT_CACHE_DIR=/cache \
  NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /home/boxlift
VOLUME /cache
STOPSIGNAL SIGTERM
# The first start downloads weights: half a gigabyte for VGG-16.
HEALTHCHECK --interval=30s --timeout=20s --start-period=600s --retries=3 CMD ["boxlift", "alive"]
CMD ["boxlift", "worker"]
