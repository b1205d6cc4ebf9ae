"""What Thalweg learns with: no Kafka, no Faust, no RocksDB here; usable alone in a notebook."""
