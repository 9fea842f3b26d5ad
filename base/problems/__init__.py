"""Problems: every refusal code with its HTTP status, title and documentation."""
