"""AT REST the columnar tables ``reports``, ``events`` and ``sessions``, in a folder or an object store."""
