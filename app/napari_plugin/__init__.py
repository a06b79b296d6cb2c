"""The napari plugin: annotate, correct and retrain, over the same library, projects and jobs as the browser app."""
