package com.sample.myapp

// Not compiled by Handbell's own tests: this file is what needs Google's SDK.
import com.google.firebase.messaging.FirebaseMessagingService
import com.google.firebase.messaging.RemoteMessage
import handbell.device.PushMessage
import handbell.device.Receipt
import kotlinx.coroutines.runBlocking

/** What Firebase tells the app. It calls on a thread that may wait, for about twenty seconds. */
class MessagingService : FirebaseMessagingService() {
    override fun onNewToken(token: String) {
        sample.received(token)
    }

    /** A message while the app is in front, or one of data only. All others Android shows by itself. */
    override fun onMessageReceived(remote: RemoteMessage) {
        val message = messageOf(remote)
        if (message.isSilent) {
            // Put the app's own synchronisation here.
            return
        }
        if (sample.notifications.show(message)) {
            runBlocking { sample.handbell.report(Receipt.DISPLAYED, message) }
        }
    }

    private fun messageOf(remote: RemoteMessage): PushMessage {
        val shown =
            remote.notification?.let {
                PushMessage.Shown(
                    it.title,
                    it.body,
                    it.imageUrl?.toString(),
                    it.channelId,
                    it.tag,
                    it.notificationCount,
                )
            }
        return PushMessage(remote.data, shown)
    }
}
