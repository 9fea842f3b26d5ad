# One image for every process of Holdfast; the command names which: holdfast ingress, and so on.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app PYTHONSAFEPATH=1

COPY requirements.lock /tmp/requirements.lock
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements.lock \
    && rm /tmp/requirements.lock \
    && printf '#!/bin/sh\nexec python -m cli.main "$@"\n' > /usr/local/bin/holdfast \
    && chmod 755 /usr/local/bin/holdfast \
    && useradd --system --create-home holdfast

WORKDIR /app
COPY pyproject.toml ./
COPY base ./base
COPY db ./db
COPY domain ./domain
COPY providers ./providers
COPY ingress ./ingress
COPY workers ./workers
COPY local ./local
COPY cli ./cli

USER holdfast
# exec form: the process is number 1 and gets SIGTERM itself.
CMD ["holdfast", "--help"]
