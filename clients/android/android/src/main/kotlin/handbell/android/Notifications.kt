package handbell.android

import android.app.Activity
import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.content.Context
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.drawable.Icon
import handbell.device.PushMessage

/**
 * Shows messages that Android does not show by itself: while the app is in front, and those that have
 * data only.
 *
 * @param icon a resource of the app: white on transparent, as Android asks for in its status bar
 * @param opens the activity that a tap starts; it finds the message by [messageOf]
 * @param channel of messages that name none, or one that the app has not made
 * @param color the colour of the icon and of the app's name
 */
public class Notifications(
    context: Context,
    private val icon: Int,
    private val opens: Class<out Activity>,
    private val channel: String = DEFAULT_CHANNEL,
    private val color: Int? = null,
) {
    private val app = context.applicationContext
    private val manager = app.getSystemService(Context.NOTIFICATION_SERVICE) as NotificationManager

    /**
     * Makes a channel, or gives it another name; what the user has set for it stays. Call it at each
     * start, before anything is shown: without its channel a notification is not shown.
     */
    public fun makeChannel(
        name: CharSequence,
        id: String = channel,
        importance: Int = NotificationManager.IMPORTANCE_HIGH,
        description: String? = null,
    ) {
        val made = NotificationChannel(id, name, importance)
        made.description = description
        manager.createNotificationChannel(made)
    }

    /**
     * Shows a message, and says whether the user can see it: they may have turned off the app's
     * notifications, or this channel. A silent one is not shown. It loads the message's picture, so
     * call it on a thread that may wait.
     */
    public fun show(message: PushMessage): Boolean {
        if (message.isSilent) return false
        val into = message.shown.channel?.takeIf { manager.getNotificationChannel(it) != null } ?: channel
        manager.notify(message.tag, ID, built(message, into))
        return manager.areNotificationsEnabled() &&
            (manager.getNotificationChannel(into)?.importance ?: NONE) != NONE
    }

    /** Takes away all that is shown: what the former user was told is not for the next one. */
    public fun clear() {
        manager.cancelAll()
    }

    private fun built(message: PushMessage, into: String): Notification {
        val shown = message.shown
        val builder =
            Notification.Builder(app, into)
                .setSmallIcon(icon)
                .setContentTitle(shown.title)
                .setContentText(shown.body)
                .setContentIntent(tap(message))
                .setAutoCancel(true)
        color?.let(builder::setColor)
        shown.count?.let(builder::setNumber)
        val picture = shown.imageUrl?.let(Picture::load)
        builder.setLargeIcon(picture?.let(Icon::createWithBitmap))
        return builder.setStyle(style(shown, picture)).build()
    }

    private fun style(shown: PushMessage.Shown, picture: Bitmap?): Notification.Style =
        if (picture == null) {
            Notification.BigTextStyle().bigText(shown.body)
        } else {
            Notification.BigPictureStyle().bigPicture(picture).setSummaryText(shown.body)
        }

    private fun tap(message: PushMessage): PendingIntent {
        val intent = Intent(app, opens)
        intent.flags = Intent.FLAG_ACTIVITY_NEW_TASK or Intent.FLAG_ACTIVITY_CLEAR_TOP or
            Intent.FLAG_ACTIVITY_SINGLE_TOP
        for ((name, value) in message.data) intent.putExtra(name, value)
        // Of two intents that differ in their extras alone, Android keeps one.
        intent.action = "handbell.opened.${message.tag}"
        return PendingIntent.getActivity(
            app,
            0,
            intent,
            PendingIntent.FLAG_UPDATE_CURRENT or PendingIntent.FLAG_IMMUTABLE,
        )
    }

    public companion object {
        /** The channel of messages that name none. */
        public const val DEFAULT_CHANNEL: String = "handbell"
        private const val ID = 0
        private const val NONE = NotificationManager.IMPORTANCE_NONE
    }
}
