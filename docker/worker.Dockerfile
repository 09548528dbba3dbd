FROM python:3.13-slim
RUN useradd --create-home boxlift && mkdir /cache && chown boxlift /cache
WORKDIR /src
COPY requirements/worker.txt requirements/
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/worker.txt
COPY pyproject.toml README.md LICENSE ./
COPY backend backend
COPY worker worker
RUN pip install --no-cache-dir --no-deps .
USER boxlift
WORKDIR /home/boxlift
ENV BOXLIFT_CACHE_DIR=/cache
VOLUME /cache
CMD ["boxlift", "worker"]
