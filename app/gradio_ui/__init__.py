"""The pages: `blocks` assembles them, one module a tab."""
