import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Java's own client with its defaults: over plain HTTP it offers h2c with its first request. */
public class Client {
    static String key;
    static HttpClient client;

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        String app = arguments[1];
        key = arguments[2];
        HttpClient.Builder builder = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5));
        if (arguments.length > 3) {
            builder.sslContext(trusting(Path.of(arguments[3])));
        }
        client = builder.build();
        URI sends = URI.create(url + "/v1/apps/" + app + "/notifications");
        byte[] one = send("by its length").getBytes(StandardCharsets.UTF_8);
        tell("length", post(sends, "application/json", BodyPublishers.ofByteArray(one)));
        byte[] two = send("in chunks").getBytes(StandardCharsets.UTF_8);
        tell("chunks", post(sends, "application/json",
            BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(two))));
        // Half a second after its head, so that it comes in a piece of its own.
        byte[] late = send("late").getBytes(StandardCharsets.UTF_8);
        tell("late", post(sends, "application/json",
            BodyPublishers.ofInputStream(() -> new Late(late))));
        tell("stream", post(sends, "application/x-ndjson", BodyPublishers.ofString(
            send("line one") + "\n" + send("line two") + "\n")));
        HttpRequest expecting = request(sends, "application/json",
            BodyPublishers.ofByteArray(send("with leave").getBytes(StandardCharsets.UTF_8)))
            .expectContinue(true).build();
        tell("expect", client.send(expecting, BodyHandlers.ofString()));
        tell("large", post(sends, "application/json",
            BodyPublishers.ofByteArray(new byte[3_000_000])));
        key = "hbk_00000000_" + "A".repeat(32);
        tell("wrong", post(sends, "application/json", BodyPublishers.ofByteArray(one)));
        key = arguments[2];
        List<CompletableFuture<HttpResponse<String>>> running = new ArrayList<>();
        for (int number = 0; number < 20; number++) {
            running.add(client.sendAsync(request(sends, "application/json",
                BodyPublishers.ofString(send("at once " + number))).build(),
                BodyHandlers.ofString()));
        }
        for (CompletableFuture<HttpResponse<String>> each : running) {
            tell("at once", each.get());
        }
        tell("health", client.send(HttpRequest.newBuilder(URI.create(url + "/healthz")).build(),
            BodyHandlers.ofString()));
    }

    static String send(String title) {
        return "{\"notification\":{\"title\":\"" + title + "\"},\"recipients\":\"a@example.com\"}";
    }

    static HttpRequest.Builder request(URI uri, String kind, BodyPublisher body) {
        return HttpRequest.newBuilder(uri).timeout(Duration.ofSeconds(10))
            .header("Content-Type", kind).header("Authorization", "Bearer " + key).POST(body);
    }

    static HttpResponse<String> post(URI uri, String kind, BodyPublisher body) throws Exception {
        return client.send(request(uri, kind, body).build(), BodyHandlers.ofString());
    }

    static void tell(String what, HttpResponse<String> answer) {
        System.out.println(what + "\t" + answer.statusCode() + "\t" + answer.version() + "\t"
            + answer.body().strip().replace("\n", " "));
    }

    static SSLContext trusting(Path pem) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (InputStream stream = Files.newInputStream(pem)) {
            store.setCertificateEntry("authority",
                CertificateFactory.getInstance("X.509").generateCertificate(stream));
        }
        TrustManagerFactory factory =
            TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, factory.getTrustManagers(), null);
        return context;
    }

    /** Content that is there after a pause. */
    static class Late extends ByteArrayInputStream {
        private boolean first = true;

        Late(byte[] content) {
            super(content);
        }

        @Override
        public synchronized int read(byte[] into, int from, int most) {
            if (first) {
                first = false;
                try {
                    Thread.sleep(500);
                } catch (InterruptedException error) {
                    Thread.currentThread().interrupt();
                }
            }
            return super.read(into, from, most);
        }
    }
}
