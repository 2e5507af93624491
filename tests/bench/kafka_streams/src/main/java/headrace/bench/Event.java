package headrace.bench;

import com.alibaba.fastjson2.JSON;
import com.alibaba.fastjson2.JSONWriter;
import java.nio.FloatBuffer;

/** An event's JSON → its numbers; its score → a prediction's JSON. */
public final class Event { // public, as are its fields: fastjson2 then compiles a reader for it
    public String id;
    public float f0;
    public float f1;
    public float f2;
    public float f3;
    public float f4;
    public float f5;
    public float f6;
    public float f7;

    static Event read(byte[] json) {
        return JSON.parseObject(json, Event.class);
    }

    void numbers(FloatBuffer to, int row) {
        int at = row * Model.FEATURES;
        to.put(at, f0).put(at + 1, f1).put(at + 2, f2).put(at + 3, f3);
        to.put(at + 4, f4).put(at + 5, f5).put(at + 6, f6).put(at + 7, f7);
    }

    byte[] prediction(float score, String topic, int partition, long offset) {
        try (var json = JSONWriter.ofUTF8()) {
            json.startObject();
            json.writeName("id");
            json.writeColon();
            json.writeString(id);
            json.writeName("prediction");
            json.writeColon();
            json.writeFloat(score);
            json.writeName("version");
            json.writeColon();
            json.writeInt32(1);
            json.writeName("source");
            json.writeColon();
            json.startArray();
            json.writeString(topic);
            json.writeComma();
            json.writeInt32(partition);
            json.writeComma();
            json.writeInt64(offset);
            json.endArray();
            json.endObject();
            return json.getBytes();
        }
    }
}
