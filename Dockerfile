# adapterctl with its tested set of dependencies.
#
#   docker build -t adapterctl .
#   docker run --rm -v "$PWD:/workspace" adapterctl update --lang ja
#
# With CUDA instead of the CPU build of PyTorch:
#   docker build --build-arg PIP_EXTRA_INDEX_URL= -t adapterctl .
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

WORKDIR /opt/adapterctl
COPY . .
RUN VENV=/opt/venv DEV=0 scripts/install.sh
ENV PATH="/opt/venv/bin:$PATH"

# Files made in the mounted workspace belong to this user; `docker run --user` names another. Any user may write the
# caches in this home.
RUN useradd --uid 1000 --create-home --home-dir /home/adapterctl adapterctl && chmod 1777 /home/adapterctl
ENV HOME=/home/adapterctl
USER adapterctl

WORKDIR /workspace
ENTRYPOINT ["adapterctl"]
CMD ["--help"]
