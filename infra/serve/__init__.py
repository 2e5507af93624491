"""requests → batches → the models that the stream serves. `rest` and `grpc_service` are its two faces."""
