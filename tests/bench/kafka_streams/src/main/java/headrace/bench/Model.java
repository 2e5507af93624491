package headrace.bench;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Map;

/** Rows of eight numbers → a prediction each. Used by one thread. */
final class Model implements AutoCloseable {
    static final int FEATURES = 8;

    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;
    // Direct and in native order: tensors are views of them, nothing is copied. They grow with the largest batch.
    private FloatBuffer numbers = floats(FEATURES);
    private FloatBuffer predictions = floats(1);

    Model(String path) throws OrtException {
        try (var options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            options.addConfigEntry("session.intra_op.allow_spinning", "0");
            session = environment.createSession(path, options);
        }
    }

    /** Where to write `rows` rows: FEATURES numbers each, by absolute index. */
    FloatBuffer rows(int rows) {
        if (numbers.capacity() < rows * FEATURES) {
            numbers = floats(rows * FEATURES);
            predictions = floats(rows);
        }
        numbers.limit(rows * FEATURES);
        predictions.limit(rows);
        return numbers;
    }

    /** Scores of the rows that were written, by absolute index; overwritten by the next call. */
    FloatBuffer score() throws OrtException {
        long rows = predictions.limit();
        try (var given = OnnxTensor.createTensor(environment, numbers, new long[] {rows, FEATURES});
                var answer = OnnxTensor.createTensor(environment, predictions, new long[] {rows});
                var ignored = session.run(Map.of("numbers", given), Map.of("prediction", answer))) {
            return predictions;
        }
    }

    @Override
    public void close() throws OrtException {
        session.close();
    }

    private static FloatBuffer floats(int size) {
        return ByteBuffer.allocateDirect(size * Float.BYTES).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }
}
