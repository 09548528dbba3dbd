FROM python:3.13-slim
RUN useradd --create-home boxlift
WORKDIR /src
COPY requirements/backend.txt requirements/
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements/backend.txt
COPY pyproject.toml README.md LICENSE ./
COPY backend backend
COPY worker worker
RUN pip install --no-cache-dir --no-deps .
USER boxlift
WORKDIR /home/boxlift
ENV BOXLIFT_HOST=0.0.0.0
EXPOSE 9090
CMD ["boxlift", "serve"]
