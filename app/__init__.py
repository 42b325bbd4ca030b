# SPDX-License-Identifier: Apache-2.0
"""Tierway: an OpenAI-compatible gateway that sends each request to the cheapest model that can do it."""

__version__ = "0.1.0"
