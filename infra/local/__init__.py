"""A real Apache Kafka and a real Redis on this machine, from wheels and Maven jars, without Docker or root."""
