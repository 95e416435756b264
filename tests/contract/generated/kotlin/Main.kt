// Sends what a generated Kotlin client can say to a running server, and prints what came back.
import org.openapitools.client.apis.NotificationsApi
import org.openapitools.client.infrastructure.ApiClient
import org.openapitools.client.models.NotificationContent
import org.openapitools.client.models.Recipients
import org.openapitools.client.models.SendRequest

fun main(given: Array<String>) {
    val (server, app, key, mail) = given
    ApiClient.accessToken = key
    val notifications = NotificationsApi(server)
    fun text(title: String) = SendRequest(
        notification = NotificationContent(title = title, body = "From Kotlin"),
        recipients = Recipients(mails = listOf(mail)),
    )
    println(notifications.sendNotification(app, text("one"), prefer = "wait=10").success)
    println(notifications.sendNotification(app, text("stored")).id.isNotEmpty())
    println(notifications.sendNotifications(app, listOf(text("two"), text("three"))).count { it.id != null })
}
