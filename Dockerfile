# CPU:  docker build -t ldm-privacy .
# GPU:  docker build -t ldm-privacy:gpu --build-arg TORCH_INDEX=https://pypi.org/simple .      # its wheels hold CUDA
# The two commands of README:
#   docker run --rm -v "$PWD/runs:/app/runs" ldm-privacy                          # --gpus all ldm-privacy:gpu for a GPU
#   docker run --rm ldm-privacy python -m pytest
FROM python:3.11.11-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 WANDB_MODE=offline

# git is what pytest's test of the wheel copies with; a C compiler is for trainer.compile.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 auditor \
    && mkdir -p /app/runs \
    && chown -R auditor /app

WORKDIR /app
COPY --chown=auditor . .
# torch first, of the pinned version and from the index of its device; then all that is pinned beside it.
RUN pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.txt)" \
    && pip install -r requirements.txt

USER auditor
CMD ["python", "train.py", "--config", "digits.yaml"]
