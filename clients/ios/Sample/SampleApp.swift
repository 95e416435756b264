import Handbell
import SwiftUI

/// An app of SwiftUI. In one of UIKit, `SceneDelegate` stands in its place.
@main
struct SampleApp: App {
    @UIApplicationDelegateAdaptor(AppDelegate.self) private var delegate
    @Environment(\.scenePhase) private var phase

    var body: some Scene {
        WindowGroup {
            ContentView()
                .onContinueUserActivity(NSUserActivityTypeBrowsingWeb) { activity in
                    Push.shared.follow(activity)
                }
        }
        .onChange(of: phase) { phase in
            // Whoever looks at the app has seen what the number was about.
            if phase == .active { Push.shared.setBadge(0) }
        }
    }
}

/// A sign-in by mail and a sign-out, in place of the app's own.
private struct ContentView: View {
    @State private var mail = ""
    @State private var message = ""

    var body: some View {
        VStack(spacing: 16) {
            TextField("Mail address", text: $mail)
                .textContentType(.emailAddress)
                .keyboardType(.emailAddress)
                .textInputAutocapitalization(.never)
            Button("Sign in") {
                run("Look into your mail") { try await Push.shared.userSignedIn(.mail(mail)) }
            }
            Button("Sign out") {
                run("Signed out") { try await Push.shared.userSignsOut() }
            }
            Text(message)
        }
        .padding()
    }

    private func run(_ done: String, _ work: @escaping @MainActor () async throws -> Void) {
        Task { @MainActor in
            do {
                try await work()
                message = done
            } catch {
                message = error.localizedDescription
            }
        }
    }
}
