"""Tests of providers/paypal."""
