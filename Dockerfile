# The image that docker-compose.yml runs. The state, the compiled kernels and the data lie in volumes, never in here.
FROM python:3.11.14-slim-bookworm

RUN useradd --uid 10001 --create-home thalweg \
 && install --directory --owner=thalweg --group=thalweg --mode=0700 /var/lib/thalweg /var/cache/thalweg

WORKDIR /opt/thalweg
COPY . .
# torch's own index has it without CUDA, which would add several GB
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu '.[kafka]'

USER thalweg
# Faust makes a folder where it is started
WORKDIR /var/lib/thalweg
ENV THALWEG_CACHE=/var/cache/thalweg PYTHONUNBUFFERED=1
VOLUME ["/var/lib/thalweg", "/var/cache/thalweg"]
ENTRYPOINT ["thalweg"]
CMD ["--help"]
