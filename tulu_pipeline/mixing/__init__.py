"""What a component leaves of its conversations: licenses, languages, repetitions."""
