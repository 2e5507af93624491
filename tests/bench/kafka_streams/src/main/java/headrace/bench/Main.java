package headrace.bench;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;

/**
 * events → Kafka Streams → predictions. A peer of headrace's benchmark.
 *
 * <p>Predictions go to the partition of their key, as Streams does it. With the classic group protocol and ParallelGC it
 * made 311,000 events/s; with Streams' own protocol 241,000, with G1 251,000.
 */
public final class Main {
    private static final Duration PATIENCE = Duration.ofSeconds(30);

    public static void main(String[] arguments) throws IOException {
        var given = given(arguments);
        var topology = new Topology();
        var in = new ByteArrayDeserializer();
        var out = new ByteArraySerializer();
        topology.addSource("events", in, in, given.get("--events"));
        topology.addProcessor("guard", Guard::new, "events");
        topology.addSink("predictions", given.get("--predictions"), out, out, "guard");
        var state = Files.createTempDirectory("kafka-streams"); // Streams wants one, and keeps a lock in it
        var streams = new KafkaStreams(topology, config(given, state));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            throw new AssertionError();
        });
        // After SIGTERM a JVM exits with 143; one that was told to stop, and did so in order, has not failed.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            boolean closed = streams.close(PATIENCE);
            delete(state);
            Runtime.getRuntime().halt(closed ? 0 : 1);
        }));
        streams.start();
    }

    private static void delete(Path folder) {
        try (var found = Files.walk(folder)) {
            found.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(File::delete);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static Properties config(Map<String, String> given, Path state) {
        boolean exactlyOnce = given.containsKey("--exactly-once");
        var config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get("--group"));
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("--bootstrap-servers"));
        config.put(
                StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
                exactlyOnce ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, exactlyOnce ? 100 : 200);
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1); // one partition is one task, and that one thread's
        config.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        config.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000); // no pause between two polls

        var scoring = Scoring.class.getName();
        config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.INTERCEPTOR_CLASSES_CONFIG), scoring);
        config.put(StreamsConfig.mainConsumerPrefix(Scoring.MODEL), given.get("--model"));
        config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 1000);
        config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 10 << 20);
        config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.RECEIVE_BUFFER_CONFIG), -1);
        config.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.CHECK_CRCS_CONFIG), false); // nor does librdkafka

        config.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 5);
        config.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 1 << 20);
        config.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 256L << 20);
        config.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        config.put(StreamsConfig.producerPrefix(ProducerConfig.SEND_BUFFER_CONFIG), -1);
        return config;
    }

    private static Map<String, String> given(String[] arguments) {
        var given = new HashMap<String, String>();
        for (int at = 0; at < arguments.length; at++) {
            boolean flag = arguments[at].equals("--exactly-once");
            given.put(arguments[at], flag ? "" : arguments[++at]);
        }
        for (var name : Set.of("--bootstrap-servers", "--events", "--predictions", "--group", "--model")) {
            if (!given.containsKey(name)) {
                throw new IllegalArgumentException("expected " + name);
            }
        }
        return given;
    }
}
