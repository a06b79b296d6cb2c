"""The browser app of UniVG: no algorithms here, only pages over `univg`."""
