"""Figures and alerts: what the service measures about itself, and what somebody should act on."""
