"""Cells of the tables that both interfaces write for spreadsheets."""


def harmless(cell: str) -> str:
    """`cell` so that no spreadsheet takes it for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell
