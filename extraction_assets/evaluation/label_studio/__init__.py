"""label_studio: labels on their way to Label Studio and back"""
