"""ULS-DRAM's own parts: fusion, range policies, taggers, and the model they make."""
