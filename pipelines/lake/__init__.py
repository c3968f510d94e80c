"""Tables and files of the data lake: storage, inputs, snapshots, products, documents."""
