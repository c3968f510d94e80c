"""How a night's results enter the table: lock, publish, erase, maintenance."""
