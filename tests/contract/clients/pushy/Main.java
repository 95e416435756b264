import com.eatthepath.pushy.apns.ApnsClient;
import com.eatthepath.pushy.apns.ApnsClientBuilder;
import com.eatthepath.pushy.apns.DeliveryPriority;
import com.eatthepath.pushy.apns.PushNotificationResponse;
import com.eatthepath.pushy.apns.PushType;
import com.eatthepath.pushy.apns.auth.ApnsSigningKey;
import com.eatthepath.pushy.apns.util.SimpleApnsPushNotification;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;

/**
 * Sends the pushes that it reads with pushy, and writes what became of each. Its input and output
 * are those of every program here; see judgements.py.
 */
public final class Main {
    private final ApnsClient client;

    private Main() throws Exception {
        URI url = URI.create(System.getenv("CLIENT_URL"));
        ApnsSigningKey key = ApnsSigningKey.loadFromPkcs8File(
                new File(System.getenv("CLIENT_KEY_FILE")),
                System.getenv("CLIENT_TEAM_ID"),
                System.getenv("CLIENT_KEY_ID"));
        client = new ApnsClientBuilder()
                .setApnsServer(url.getHost(), url.getPort())
                .setTrustedServerCertificateChain(new File(System.getenv("CLIENT_CA_FILE")))
                .setSigningKey(key)
                .build();
    }

    public static void main(String[] arguments) throws Exception {
        Main main = new Main();
        List<CompletableFuture<String>> results = new ArrayList<>();
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            results.add(main.send(line.split("\t", -1)));
            if (results.size() == 1 || System.getenv("CLIENT_IN_TURN") != null) {
                results.get(results.size() - 1).join(); // the first alone, as Apple asks
            }
        }
        for (CompletableFuture<String> result : results) {
            System.out.println(result.join());
        }
        main.client.close().get();
    }

    private CompletableFuture<String> send(String[] fields) {
        SimpleApnsPushNotification push = new SimpleApnsPushNotification(
                fields[0],
                fields[1],
                fields[7],
                fields[4].isEmpty() ? null : Instant.ofEpochSecond(Long.parseLong(fields[4])),
                fields[3].isEmpty() ? null : DeliveryPriority.getFromCode(Integer.parseInt(fields[3])),
                fields[2].isEmpty() ? null : PushType.getFromHeaderValue(fields[2]),
                fields[5].isEmpty() ? null : fields[5],
                fields[6].isEmpty() ? null : UUID.fromString(fields[6]));
        return client.sendNotification(push).handle(Main::result);
    }

    private static String result(
            PushNotificationResponse<SimpleApnsPushNotification> response, Throwable error) {
        if (error != null) {
            return "0\t" + error.toString().replace('\t', ' ').replace('\n', ' ') + "\t\t";
        }
        String since = response.getTokenInvalidationTimestamp()
                .map(instant -> Long.toString(instant.toEpochMilli()))
                .orElse("");
        return response.getStatusCode() + "\t" + response.getRejectionReason().orElse("") + "\t"
                + since + "\t" + response.getApnsId();
    }
}
