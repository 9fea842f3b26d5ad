"""The wallet: entries, debits, holds, freezes, thresholds and their queries."""
