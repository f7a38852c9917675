"""Tests of every floor, run by C{trial stripetwist}; none of them touches the reactor."""
