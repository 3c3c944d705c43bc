import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Writes what was committed to topics into files, as Kafka's own client reads it: a line of JSON for each record.
 *
 *     java -cp "JARS/*" Topics.java BROKERS TOPIC=FILE...
 *
 * The jars are those of Kafka. The topics are read one after the other, each up to where it ended when its turn came, also
 * behind transactions that are under way then: those are waited for, since the brokers end them after their time. The lines
 * are as those of `weir peek --json`: what is not text is there as `key_base64` and `value_base64`.
 */
public final class Topics {
    /** For a broker to answer, and for a transaction to end. */
    private static final Duration PATIENCE = Duration.ofMinutes(3);

    private static final Duration MOMENT = Duration.ofSeconds(1);

    public static void main(String[] arguments) throws IOException {
        for (int n = 1; n < arguments.length; n++) {
            String[] parts = arguments[n].split("=", 2);
            read(arguments[0], parts[0], Path.of(parts[1]));
        }
    }

    private static void read(String brokers, String topic, Path to) throws IOException {
        Map<TopicPartition, Long> ends = ends(brokers, topic);
        try (var consumer = consumer(brokers, "read_committed"); var out = Files.newBufferedWriter(to)) {
            consumer.assign(ends.keySet());
            consumer.seekToBeginning(ends.keySet());
            Set<TopicPartition> left = new HashSet<>(ends.keySet());
            long before = -1;
            Instant since = Instant.now();
            while (true) {
                // Markers of transactions have offsets, too, and are no records: only where the client stands tells the end.
                long read = 0;
                for (var end : ends.entrySet()) {
                    long position = consumer.position(end.getKey());
                    read += position;
                    if (position >= end.getValue()) {
                        left.remove(end.getKey());
                    }
                }
                if (left.isEmpty()) {
                    return;
                }
                if (read > before) {
                    before = read;
                    since = Instant.now();
                } else if (since.plus(PATIENCE).isBefore(Instant.now())) {
                    throw new IOException("nothing came of " + left + " for " + PATIENCE);
                }
                for (var record : consumer.poll(MOMENT)) {
                    if (record.offset() < ends.get(new TopicPartition(topic, record.partition()))) {
                        out.write(line(record) + "\n");
                    }
                }
            }
        }
    }

    /** Where each partition ends, whatever of it is committed. */
    private static Map<TopicPartition, Long> ends(String brokers, String topic) throws IOException {
        try (var consumer = consumer(brokers, "read_uncommitted")) {
            var partitions = consumer.partitionsFor(topic, PATIENCE);
            if (partitions == null || partitions.isEmpty()) {
                throw new IOException("there is no topic " + topic);
            }
            var all = partitions.stream().map(of -> new TopicPartition(topic, of.partition()));
            return consumer.endOffsets(all.collect(Collectors.toSet()), PATIENCE);
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String brokers, String isolation) {
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", brokers,
                "isolation.level", isolation,
                "enable.auto.commit", false,
                "auto.offset.reset", "none");
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static String line(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode line = JsonNodeFactory.instance.objectNode();
        line.put("partition", record.partition()).put("offset", record.offset());
        line.put("timestamp", record.timestamp() < 0 ? null : Instant.ofEpochMilli(record.timestamp()).toString());
        put(line, "key", record.key());
        put(line, "value", record.value());
        var headers = line.putArray("headers");
        for (var header : record.headers()) {
            put(headers.addObject().put("name", header.key()), "value", header.value());
        }
        return line.toString();
    }

    /** Bytes under a name: text as it is, others as base64. */
    private static void put(ObjectNode into, String name, byte[] bytes) {
        if (bytes == null) {
            into.putNull(name);
            return;
        }
        try {
            into.put(name, StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString());
        } catch (CharacterCodingException notText) {
            into.put(name + "_base64", Base64.getEncoder().encodeToString(bytes));
        }
    }
}
