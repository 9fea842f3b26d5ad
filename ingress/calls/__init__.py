"""Urgent answers about calls: may it be admitted, may it be dialled, must it end."""
