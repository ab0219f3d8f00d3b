from arithmetic import arithmetic, one_thread

__all__ = ["arithmetic", "one_thread"]
