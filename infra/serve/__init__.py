"""On demand: requests → batches → the models that the stream serves. `app` is the REST face, `grpc_service` the other."""
