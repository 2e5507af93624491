package headrace.bench;

import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;

/** Lets predictions through, and stops the application, before anything is committed, when scoring has failed. */
final class Guard extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
    @Override
    public void process(Record<byte[], byte[]> prediction) {
        if (Scoring.failure != null) {
            throw new IllegalStateException("events could not be scored", Scoring.failure);
        }
        context().forward(prediction);
    }
}
