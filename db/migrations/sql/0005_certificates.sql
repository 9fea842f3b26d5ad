-- PayPal's signing certificates, each verified when it was fetched; verified again when it is read.
CREATE TABLE paypal_certificates (
    url        text COLLATE "C" PRIMARY KEY CHECK (length(url) BETWEEN 1 AND 500),
    pem        bytea NOT NULL CHECK (length(pem) BETWEEN 1 AND 65536),
    fetched_at timestamptz NOT NULL
);

GRANT SELECT ON paypal_certificates TO holdfast_app, holdfast_readonly;
GRANT INSERT, UPDATE, DELETE ON paypal_certificates TO holdfast_app;
