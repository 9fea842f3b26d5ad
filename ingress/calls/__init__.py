"""The answers about calls that cannot wait: may it be taken, may it be dialled, must it end."""
