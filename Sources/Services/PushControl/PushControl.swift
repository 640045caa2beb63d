// PushControl
