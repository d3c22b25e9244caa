"""The pages of the dashboard, mutually blind: each has PATH, TITLE, ICON, layout and connect."""
