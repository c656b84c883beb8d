"""Work in other processes: local workers, a Dask cluster, RPC servers."""
